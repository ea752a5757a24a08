"""EKS, written anew on moto's parser and serialiser: clusters, access entries, add-ons and node
groups that launch instances. `operations.py` lists what is served."""
