"""What the dashboard shows as pictures and tables: charts, frames of clips, Markdown.

Not here: videos (`logging_system.files`).
"""
