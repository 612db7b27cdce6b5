"""Training of the SpeechAE: Whisper's states kept on disk, segments cut from them, the autoencoder learnt."""
