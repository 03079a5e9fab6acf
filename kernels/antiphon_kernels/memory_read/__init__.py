"""Reading memory from one end to the other: the speed that bounds whatever streams through a model's weights."""
