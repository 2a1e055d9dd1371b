"""What is measured on checkpoints and on points of their plane. Takes and gives plain types and pandas tables."""
