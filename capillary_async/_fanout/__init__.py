"""Many keys: one outcome for each; knows no HTTP."""
