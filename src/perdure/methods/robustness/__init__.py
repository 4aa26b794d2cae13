"""Methods that make the model robust to changes of its inputs."""
