"""What machines are made of: namespaces with programs, containers, virtual machines, boxes outside."""
