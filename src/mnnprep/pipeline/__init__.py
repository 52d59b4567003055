"""The order of the stages. No framework is named here: formats say by tables what their steps are."""
