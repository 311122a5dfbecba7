"""Quality-diversity: archives, emitters, and MAP-Elites over both."""
