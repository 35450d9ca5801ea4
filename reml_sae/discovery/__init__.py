"""The search for codes and structure: starts, moves, and V that judges them."""
