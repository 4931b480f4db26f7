"""From measurement to result to verdict; nothing here touches the kernel."""
