package revocation

// Remember sets how many certificates are remembered, and Remembered tells how many are.
func (c *Checker) Remember(most int) { c.ocsp.most = most }

func (c *Checker) Remembered() int {
	c.ocsp.mu.Lock()
	defer c.ocsp.mu.Unlock()
	return len(c.ocsp.questions)
}
