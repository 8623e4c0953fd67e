"""One list: its pages, its end, its positions; knows no HTTP."""
