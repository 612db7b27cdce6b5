"""What builds and checks the repository itself; never imported by the library, the services or the gateway."""
