package center

// Inspect is what Push does to an archive before anything is kept.
var Inspect = inspect
