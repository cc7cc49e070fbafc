"""What every page is made of: tables, marks, drawings, templates, exports."""
