"""ConceptWorld: pictures drawn from parts, whose every concept is known exactly."""
