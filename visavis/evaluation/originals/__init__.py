"""The published measures as they are published: FID, FVD, E-FID, Sync-C and Sync-D, on their original networks.

Nothing here comes with weights. Whoever has the files of the original networks names their folder; without them these
measures are not taken, and nothing else is called by their names.
"""
