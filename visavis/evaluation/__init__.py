"""How good trained weights are: measures on clips that training never saw."""
