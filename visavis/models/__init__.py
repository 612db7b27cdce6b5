"""The networks: torch, diffusers and transformers only; never gRPC, never a service."""
