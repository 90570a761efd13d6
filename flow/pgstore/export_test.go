package pgstore

// Schema1 is the layout of the first version.
var Schema1 = schema1
