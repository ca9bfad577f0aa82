"""The ranks: how they meet, agree, fail and leave."""
