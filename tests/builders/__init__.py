"""What tests build to work on: catalogues of audio, mels, and models that were never trained."""
