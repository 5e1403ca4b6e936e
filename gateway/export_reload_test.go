package gateway

// Slots returns how many issuers and partners the gateway counts the exchanges of.
func (g *Gateway) Slots() int {
	g.slots.mu.Lock()
	defer g.slots.mu.Unlock()
	return len(g.slots.issuers) + len(g.slots.partners)
}
