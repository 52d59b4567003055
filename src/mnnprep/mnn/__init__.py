"""All that is known of MNN: its converter, its runtime, the names it gives, what its Torch frontend reads."""
