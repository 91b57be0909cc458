"""What tests share: the reference, the table of cases, problems to train on, other libraries' optimizers."""
