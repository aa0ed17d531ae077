"""Around the judge: how it is asked, how its replies are read, and how it is itself judged."""
