package balance

// Plant puts a bug into the group.
func (g *Group) Plant(bug string) { g.plantedBug = bug }
