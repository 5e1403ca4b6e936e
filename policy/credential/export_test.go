package credential

// ParseFile is List without the disk.
var ParseFile = parseFile
