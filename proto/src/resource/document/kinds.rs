//! Documents and what they are about, made from the list of kinds.

/// Makes documents of all kinds, their kinds and the names of what they are about from a list: each kind with its document and
/// what names its objects, in the mesh or in a network. The order is the one in which kinds are applied.
macro_rules! kinds {
    (
        mesh { $($(#[$mesh_doc:meta])* $Mesh:ident($MeshDocument:ty, $MeshName:ty),)* }
        network { $($(#[$doc:meta])* $Kind:ident($Document:ty, $Name:ty),)* }
    ) => {
        /// A document of any kind.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Document {
            $($(#[$mesh_doc])* $Mesh($MeshDocument),)*
            $($(#[$doc])* $Kind($Document),)*
        }

        /// Subject of a document, by its name, or by its network and its name there: no two documents of one `apply` may have
        /// the same.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DocumentId {
            $($(#[$mesh_doc])* $Mesh($MeshName),)*
            $($(#[$doc])* $Kind(NetworkName, $Name),)*
        }

        /// A kind of documents.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DocumentKind {
            $($(#[$mesh_doc])* $Mesh,)*
            $($(#[$doc])* $Kind,)*
        }

        impl Document {
            /// Reads a document of a kind that is known already.
            ///
            /// # Errors
            /// The deserializer's own.
            pub fn read<'de, D: Deserializer<'de>>(kind: DocumentKind, deserializer: D) -> Result<Self, D::Error> {
                match kind {
                    $(DocumentKind::$Mesh => <$MeshDocument>::deserialize(deserializer).map(Self::$Mesh),)*
                    $(DocumentKind::$Kind => <$Document>::deserialize(deserializer).map(Self::$Kind),)*
                }
            }

            /// Checks that the fields go together.
            ///
            /// # Errors
            /// Names the field that does not.
            pub fn check(&self) -> Result<(), FieldError> {
                match self {
                    $(Self::$Mesh(document) => document.check(),)*
                    $(Self::$Kind(document) => document.check(),)*
                }
            }

            /// Returns the object that the document describes.
            #[must_use]
            pub fn id(&self) -> DocumentId {
                match self {
                    $(Self::$Mesh(document) => document.id(),)*
                    $(Self::$Kind(document) => document.id(),)*
                }
            }
        }

        impl DocumentId {
            /// The object of this kind that is called `name`, in `network` if it is in one.
            ///
            /// # Errors
            /// When a text is no such name.
            pub fn parse(kind: DocumentKind, network: &str, name: &str) -> Result<Self, NameError> {
                Ok(match kind {
                    $(DocumentKind::$Mesh => Self::$Mesh(name.parse()?),)*
                    $(DocumentKind::$Kind => Self::$Kind(network.parse()?, name.parse()?),)*
                })
            }

            /// Returns the object's kind.
            #[must_use]
            pub fn kind(&self) -> DocumentKind {
                match self {
                    $(Self::$Mesh(_) => DocumentKind::$Mesh,)*
                    $(Self::$Kind(..) => DocumentKind::$Kind,)*
                }
            }

            /// The network that it is or belongs to.
            #[must_use]
            pub fn network(&self) -> &NetworkName {
                match self {
                    $(Self::$Mesh(network))|* $(| Self::$Kind(network, _))* => network,
                }
            }

            /// Returns the object's name.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$Mesh(name) => name.as_str(),)*
                    $(Self::$Kind(_, name) => name.as_str(),)*
                }
            }
        }

        impl fmt::Display for DocumentId {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let [kind, ..] = self.kind().words();
                match self {
                    $(Self::$Mesh(name) => write!(f, "{kind} {name}"),)*
                    $(Self::$Kind(network, name) => write!(f, "{kind} {name} in network {network}"),)*
                }
            }
        }

        impl DocumentKind {
            /// All of them, in the order in which they are applied.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$Mesh,)* $(Self::$Kind,)*];
            const COUNT: usize = [$(Self::$Mesh,)* $(Self::$Kind,)*].len();

            /// The kind's name in documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Mesh => <$MeshDocument as DocumentType>::KIND,)*
                    $(Self::$Kind => <$Document as DocumentType>::KIND,)*
                }
            }

            /// The versions that its documents may have, the newest first.
            #[must_use]
            pub const fn api_versions(self) -> &'static [&'static str] {
                match self {
                    $(Self::$Mesh => <$MeshDocument as DocumentType>::API_VERSIONS,)*
                    $(Self::$Kind => <$Document as DocumentType>::API_VERSIONS,)*
                }
            }

            /// Several of it, in words.
            #[must_use]
            pub const fn plural(self) -> &'static str {
                let [_, plural, _] = self.words();
                plural
            }

            /// The kind's names as people type them.
            const fn words(self) -> [&'static str; 3] {
                match self {
                    $(Self::$Mesh => <$MeshDocument as DocumentType>::WORDS,)*
                    $(Self::$Kind => <$Document as DocumentType>::WORDS,)*
                }
            }

            /// Returns the schema of its documents.
            fn schema(self, generator: &mut SchemaGenerator) -> Schema {
                match self {
                    $(Self::$Mesh => <$MeshDocument>::json_schema(generator),)*
                    $(Self::$Kind => <$Document>::json_schema(generator),)*
                }
            }
        }

        $(impl $MeshDocument {
            /// The object that it is about.
            #[must_use]
            pub fn id(&self) -> DocumentId {
                DocumentId::$Mesh(self.metadata.name.clone())
            }
        })*

        $(impl $Document {
            /// The object that it is about.
            #[must_use]
            pub fn id(&self) -> DocumentId {
                DocumentId::$Kind(self.metadata.network().clone(), self.metadata.name.clone())
            }
        })*
    };
}

pub(super) use kinds;
