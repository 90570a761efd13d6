package records

// PlantBlindnessToGaps plants the bug that time between two runs counts as seen.
func (db *DB) PlantBlindnessToGaps() { db.bugBlindToGaps = true }
