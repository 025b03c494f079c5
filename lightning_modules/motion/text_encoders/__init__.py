"""Text encoders of the motion wing: trained along, frozen towers from a folder, cached vectors."""
