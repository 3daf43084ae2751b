//! The state and its changes, made from the list of tables.

/// Makes the state, a network's state and the changes of both from a list of tables, each a field with its kind of change and
/// its record.
macro_rules! tables {
    (
        mesh { $($(#[$mesh_doc:meta])* $mesh:ident: $MeshKind:ident($MeshRecord:ty),)* }
        network { $($(#[$doc:meta])* $table:ident: $Kind:ident($Record:ty),)* }
    ) => {
        /// The desired state of the whole mesh. Changes only by [`State::apply`].
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct State {
            /// The networks and what lives in them.
            pub networks: BTreeMap<NetworkName, NetworkState>,
            /// Memory of its restoration, if it was restored.
            pub recovery: Option<Recovery>,
            $($(#[$mesh_doc])* pub $mesh: Table<$MeshRecord>,)*
        }

        /// State of a network with everything that lives in it.
        ///
        /// Invariants: blocks are disjoint; addresses, MACs and VIPs are unique; every VIP lies in a
        /// block of control's own and no workload does; every workload's node holds a block.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct NetworkState {
            /// The network itself.
            pub network: Network,
            /// The revision at which its content last changed.
            pub changed: u64,
            $($(#[$doc])* pub $table: Table<$Record>,)*
        }

        /// Change of one record. Removing a network expects that everything in it has been removed before.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is a kind of record")]
        pub enum Change {
            Network(Edit<NetworkRecord>),
            Recovery(Edit<Recovery>),
            $($MeshKind(Edit<$MeshRecord>),)*
            $($Kind(Edit<$Record>),)*
        }

        impl State {
            /// Makes one change. A change in a network that is not there does nothing.
            pub fn apply(&mut self, change: &Change) {
                match change {
                    Change::Network(edit) => edit.apply(self),
                    Change::Recovery(edit) => edit.apply(self),
                    $(Change::$MeshKind(edit) => edit.apply(self),)*
                    $(Change::$Kind(edit) => edit.apply(self),)*
                }
            }

            /// Makes the changes that make this state of an empty one, in their order.
            #[must_use]
            pub fn changes(&self) -> Vec<Change> {
                let mut changes: Vec<Change> = self.recovery.clone().map(Change::put).into_iter().collect();
                $(changes.extend(self.$mesh.rows().values().cloned().map(Change::put));)*
                for state in self.networks.values() {
                    let network = &state.network.name;
                    changes.push(state.stamped(state.changed));
                    $(changes.extend(state.$table.rows().values().cloned().map(|record| Change::put_in(network, record)));)*
                }
                changes
            }

            /// The change that undoes `change`, which has not been applied yet.
            #[must_use]
            pub fn inverse(&self, change: &Change) -> Change {
                match change {
                    Change::Network(edit) => Change::Network(edit.inverse(self)),
                    Change::Recovery(edit) => Change::Recovery(edit.inverse(self)),
                    $(Change::$MeshKind(edit) => Change::$MeshKind(edit.inverse(self)),)*
                    $(Change::$Kind(edit) => Change::$Kind(edit.inverse(self)),)*
                }
            }

            /// Notes what `change`, which has not been applied yet, touches.
            pub fn affects(&self, change: &Change, affected: &mut Affected) {
                match change {
                    Change::Network(edit) => edit.affects(self, affected),
                    Change::Recovery(edit) => edit.affects(self, affected),
                    $(Change::$MeshKind(edit) => edit.affects(self, affected),)*
                    $(Change::$Kind(edit) => edit.affects(self, affected),)*
                }
            }
        }

        impl NetworkState {
            /// A network in which nothing is.
            pub(super) fn new(network: Network) -> Self {
                Self { network, changed: 0, $($table: Table::default(),)* }
            }

            /// Makes the changes that remove all that is in the network.
            pub(super) fn emptied(&self) -> Vec<Change> {
                let mut changes = vec![];
                $(changes.extend(
                    self.$table.keys().map(|name| Change::remove_in::<$Record>(&self.network.name, name.clone())),
                );)*
                changes
            }
        }

        impl Change {
            /// Returns the key of the record's row, and the row unless it is removed.
            #[must_use]
            pub fn row(&self) -> (String, Option<Vec<u8>>) {
                match self {
                    Self::Network(edit) => edit.row(),
                    Self::Recovery(edit) => edit.row(),
                    $(Self::$MeshKind(edit) => edit.row(),)*
                    $(Self::$Kind(edit) => edit.row(),)*
                }
            }

            /// Reads the row of a table whose key has `path` behind that; `None` when there is no such table.
            #[must_use]
            pub fn load(table: &str, path: &str, row: &[u8]) -> Option<Result<Self, RowError>> {
                match table {
                    <NetworkRecord as Record>::TABLE => Some(Edit::load(path, row).map(Self::Network)),
                    <Recovery as Record>::TABLE => Some(Edit::load(path, row).map(Self::Recovery)),
                    $(<$MeshRecord as Record>::TABLE => Some(Edit::load(path, row).map(Self::$MeshKind)),)*
                    $(<$Record as Record>::TABLE => Some(Edit::load(path, row).map(Self::$Kind)),)*
                    _ => None,
                }
            }

            /// Reads the removal of the row of a table whose key has `path` behind that; `None` when there is no such table.
            #[must_use]
            pub fn removal(table: &str, path: &str) -> Option<Result<Self, RowError>> {
                match table {
                    <NetworkRecord as Record>::TABLE => Some(Edit::removal(path).map(Self::Network)),
                    <Recovery as Record>::TABLE => Some(Edit::removal(path).map(Self::Recovery)),
                    $(<$MeshRecord as Record>::TABLE => Some(Edit::removal(path).map(Self::$MeshKind)),)*
                    $(<$Record as Record>::TABLE => Some(Edit::removal(path).map(Self::$Kind)),)*
                    _ => None,
                }
            }

            /// Returns true for a change in a network, which must be there before.
            #[must_use]
            pub fn is_in_network(&self) -> bool {
                match self {
                    Self::Network(_) | Self::Recovery(_) $(| Self::$MeshKind(_))* => false,
                    $(Self::$Kind(_))|* => true,
                }
            }
        }

        $(impl Kept for $MeshRecord {
            fn change(edit: Edit<Self>) -> Change {
                Change::$MeshKind(edit)
            }

            fn find(state: &State, _: &Mesh, name: &Self::Name) -> Option<Self> {
                state.$mesh.get(name).cloned()
            }

            fn set(state: &mut State, _: &Mesh, name: &Self::Name, record: Option<&Self>) {
                state.$mesh.set(name, record);
            }
        })*

        $(impl Kept for $Record {
            fn change(edit: Edit<Self>) -> Change {
                Change::$Kind(edit)
            }

            fn find(state: &State, network: &NetworkName, name: &Self::Name) -> Option<Self> {
                state.networks.get(network)?.$table.get(name).cloned()
            }

            fn set(state: &mut State, network: &NetworkName, name: &Self::Name, record: Option<&Self>) {
                if let Some(known) = state.networks.get_mut(network) {
                    known.$table.set(name, record);
                }
            }
        })*
    };
}

pub(super) use tables;
