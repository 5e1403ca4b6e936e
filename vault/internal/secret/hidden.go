package secret

// Hidden holds a value that printers and encoders which walk structs by reflection cannot reach: they stop at a func.
// A plain pointer is not enough, because fmt follows it after a verb that does not suit pointers: fmt.Sprintf("%s", v)
// prints what an unexported pointer field of v points to, whatever Format method that has.
//
// The zero Hidden holds nil.
type Hidden[T any] struct{ value func() *T }

// Hide returns a Hidden that holds v.
func Hide[T any](v *T) Hidden[T] { return Hidden[T]{func() *T { return v }} }

// Get returns what is held.
func (h Hidden[T]) Get() *T {
	if h.value == nil {
		return nil
	}
	return h.value()
}
