"""What a trained model can do: samples now, measures later."""
