package limit

// PlantGate plants a bug for simulations to find.
func PlantGate(g *Gate, bug string) {
	g.throttle.plantedBug = bug
	if g.adaptive != nil {
		g.adaptive.plantedBug = bug
	}
}

// PlantAdaptive plants a bug for simulations to find.
func PlantAdaptive(a *Adaptive, bug string) { a.plantedBug = bug }

// PlantLimiter plants a bug for simulations to find.
func PlantLimiter(l *Limiter, bug string) { l.adaptive.plantedBug = bug }
