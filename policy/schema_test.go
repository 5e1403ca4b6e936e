package policy_test

import (
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"

	"github.com/cardstile/cardstile/policy"
)

// TestSchemaGroupsAreOneLevelDeep holds the schema to what the engine's index
// of policies relies on: a group is in no group.
func TestSchemaGroupsAreOneLevelDeep(t *testing.T) {
	var parsed schema.Schema
	if err := parsed.UnmarshalCedar([]byte(policy.Schema)); err != nil {
		t.Fatal(err)
	}
	published, err := parsed.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	groups := 0
	for uid, action := range published.Actions {
		for parent := range action.Entity.Parents.All() {
			groups++
			if published.Actions[parent].Entity.Parents.Len() != 0 {
				t.Errorf("%s is in %s, which is in a group itself", uid, parent)
			}
		}
	}
	if groups != 11 {
		t.Errorf("%d memberships, want the two of card.reveal, and three each of forward.reveal, forward.submit and field.submit", groups)
	}
	if len(published.Actions) != 32 {
		t.Errorf("%d actions; does the engine know each of them?", len(published.Actions))
	}
	for _, operation := range policy.Operations() {
		if _, ok := published.Actions[types.NewEntityUID("Action", types.String(operation))]; !ok {
			t.Errorf("no action or group for %s", operation)
		}
	}
	for _, entity := range []types.EntityType{"Partner", "User", "Card", "Issuer"} {
		if _, ok := published.Entities[entity]; !ok {
			t.Errorf("no entity type %s", entity)
		}
	}
}
