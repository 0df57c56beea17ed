"""Before the first step: what is known of data, model and device, the plan, and a look whether the device works."""
