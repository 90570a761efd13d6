package table

// Read is for the tests of what happens while a file is mapped.
var Read = read
