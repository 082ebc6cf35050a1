report.applyTheme();
report.watch();
