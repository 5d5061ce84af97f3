"""How Muster speaks over chat services: one file per service, one contract, a process for each."""
