"""The durable request queue and token log, in Redis or in memory."""
