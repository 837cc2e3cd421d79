"""Fine-tuning few parameters: LoRA, adapters, and the files they are kept in."""
