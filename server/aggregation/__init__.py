"""What replies become: checked, summed in clear or sealed, and one step of the model."""
