"""What could be a plugin and is bundled: readiness by name, and the control server ``tcp``."""
