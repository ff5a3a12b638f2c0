"""Con_spec: specifications written in concepts, checked on images and proved over regions."""
