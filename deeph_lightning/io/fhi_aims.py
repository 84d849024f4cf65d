"""To do."""
FILES = {}
def detect(folder): return False
