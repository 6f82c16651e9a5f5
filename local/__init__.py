"""Everything that makes one machine enough; nothing in services or shared imports it."""
