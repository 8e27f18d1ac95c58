"""The control plane: queue, replica leaders, controller, router and command line. Never touches a tensor."""
