//! Types by OID and by name: what a column's values look like.
//!
//! Built-in types are known without asking. Those that a database adds (enums, domains, composite types, ranges, extensions, and arrays of
//! all of these) are told with [`TypeCatalog::insert`], from the rows that [`super::catalog::TYPES`] asks for:
//!
//! ```text
//! domain  ─► the type that it is based on, with the domain's modifier     array ─► its element
//! enum, composite, range, multirange ─► text                              base type ─► by name (hstore, vector, geometry …), else text
//! ```
//! Of `money` the text does not tell everything: [`TypeCatalog::note_money`].
//!
//! Manual: "pg_type" (<https://www.postgresql.org/docs/current/catalog-pg-type.html>).

use std::collections::HashMap;

use super::builtin::{self, Shape};
use super::column::{Array, ColumnType};
use super::type_name::TypeName;

/// How often a domain may be based on a domain: far more than people nest, and an end for a catalog that goes in circles.
const NESTING_MAX: usize = 64;

/// `money`, and its array.
pub const MONEY: [u32; 2] = [790, 791];

/// `pg_type.typtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeKind {
    /// `b`: a base type, or an array.
    Base,
    /// `c`.
    Composite,
    /// `d`.
    Domain,
    /// `e`.
    Enum,
    /// `p`.
    Pseudo,
    /// `r`.
    Range,
    /// `m`.
    Multirange,
}

impl TypeKind {
    /// Reads `typtype`; `None` for a letter that no version up to 18 writes.
    #[must_use]
    pub fn of(letter: &str) -> Option<Self> {
        Some(match letter {
            "b" => Self::Base,
            "c" => Self::Composite,
            "d" => Self::Domain,
            "e" => Self::Enum,
            "p" => Self::Pseudo,
            "r" => Self::Range,
            "m" => Self::Multirange,
            _ => return None,
        })
    }
}

/// A row of `pg_type`, as [`super::catalog::TYPES`] asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRow {
    /// `oid`.
    pub oid: u32,
    /// Name of the schema: `nspname` of `typnamespace`.
    pub schema: Box<str>,
    /// `typname`.
    pub name: Box<str>,
    /// `typtype`.
    pub kind: TypeKind,
    /// `typcategory`: `A` for arrays.
    pub category: u8,
    /// `typelem`: the type of an array's elements; 0 for none.
    pub element: u32,
    /// `typbasetype`: what a domain is based on; 0 for none.
    pub base: u32,
    /// `typtypmod`: a domain's modifier of its base type; −1 for none.
    pub type_modifier: i32,
    /// `typdelim`: what stands between the elements of arrays of this type.
    pub delimiter: u8,
    /// `typlen`: −1 for types of any length, which arrays are.
    pub length: i16,
}

impl TypeRow {
    /// Whether values are written as arrays are. `typelem` alone does not tell: types of fixed length have elements, too (`point`).
    fn is_array(&self) -> bool {
        self.kind == TypeKind::Base
            && self.category == b'A'
            && self.element != 0
            && self.length == -1
    }
}

/// The types of one database.
#[derive(Debug, Clone, Default)]
pub struct TypeCatalog {
    added: HashMap<u32, TypeRow>,
    money_digits: Option<u8>,
}

impl TypeCatalog {
    /// A catalog of the built-in types.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a type, or replaces what was known of it. Built-in types stay what they are.
    pub fn insert(&mut self, row: TypeRow) {
        self.added.insert(row.oid, row);
    }

    /// Notes how many fractional digits `money` has ([`super::catalog::MONEY_DIGITS`]). Until then it is a type that is not known.
    pub fn note_money(&mut self, digits: u8) {
        self.money_digits = Some(digits);
    }

    /// The row of a type that was added.
    #[must_use]
    pub fn row(&self, oid: u32) -> Option<&TypeRow> {
        self.added.get(&oid)
    }

    /// What the values of a column of type `oid` look like; `type_modifier` is its `atttypmod`, −1 for none. `None`: this type, or one
    /// that it is made of ([`Self::missing`]), is not known; ask the server for it and [`Self::insert`] it.
    #[must_use]
    pub fn resolve(&self, oid: u32, type_modifier: i32) -> Option<ColumnType> {
        self.find(oid, type_modifier).ok()
    }

    /// The OID that has to be inserted before `oid` resolves: its own, or that of what it is made of. `None`: it resolves.
    #[must_use]
    pub fn missing(&self, oid: u32) -> Option<u32> {
        self.find(oid, -1).err()
    }

    fn find(&self, oid: u32, type_modifier: i32) -> Result<ColumnType, u32> {
        let (mut oid, mut type_modifier) = (oid, type_modifier);
        // What arrays there are around the element: only ever one in PostgreSQL, but a domain may stand between two.
        let mut delimiter = None;
        for _ in 0..NESTING_MAX {
            if let Some(found) = self.step(&mut oid, &mut type_modifier, &mut delimiter)? {
                return Ok(match delimiter {
                    Some(delimiter) => ColumnType::Array(Box::new(Array {
                        element: found,
                        delimiter,
                    })),
                    None => found,
                });
            }
        }
        // The server refuses to make such a type; were there one, its text would still be the truth.
        Ok(ColumnType::Text)
    }

    /// Follows `oid` to the type that it is made of, or ends with a type that is made of no other.
    fn step(
        &self,
        oid: &mut u32,
        type_modifier: &mut i32,
        delimiter: &mut Option<u8>,
    ) -> Result<Option<ColumnType>, u32> {
        if let Some(builtin) = builtin::by_oid(*oid) {
            let found = builtin.shape.column_type(*type_modifier, self.money_digits);
            return found.map(Some).ok_or(*oid);
        }
        let (element, separator) = match (builtin::by_array_oid(*oid), self.added.get(oid)) {
            (Some(element), _) => (element.oid, builtin::delimiter(element.oid)),
            (None, Some(row)) if row.kind == TypeKind::Domain => {
                *oid = row.base;
                *type_modifier = row.type_modifier;
                return Ok(None);
            }
            (None, Some(row)) if row.is_array() => {
                let of_element = match self.added.get(&row.element) {
                    Some(element) => element.delimiter,
                    None => builtin::delimiter(row.element),
                };
                (row.element, of_element)
            }
            (None, Some(row)) => {
                let found = shape_of(row).column_type(*type_modifier, self.money_digits);
                return found.map(Some).ok_or(*oid);
            }
            (None, None) => return Err(*oid),
        };
        if delimiter.is_some() {
            // An array of a domain over an array: the inner ones are quoted texts.
            return Ok(Some(ColumnType::Text));
        }
        *delimiter = Some(separator);
        *oid = element;
        Ok(None)
    }

    /// OID and modifier of a type as `format_type` writes it, which is how wal2json names types: `character varying(64)`,
    /// `timestamp(3) without time zone`, `integer[]`, `shop."Mood"`. `None`: it is no such text, or the type is not known, or its name is
    /// that of types in several schemas of which none is `public`.
    #[must_use]
    pub fn by_name(&self, text: &str) -> Option<(u32, i32)> {
        let name = TypeName::parse(text)?;
        let oid = self.named(name.schema.as_deref(), &name.name)?;
        if !name.is_array {
            return Some((oid, name.type_modifier));
        }
        let array = match builtin::by_oid(oid) {
            Some(builtin) => builtin.array,
            None => {
                let mut rows = self.added.values();
                rows.find(|row| row.is_array() && row.element == oid)?.oid
            }
        };
        (array != 0).then_some((array, name.type_modifier))
    }

    fn named(&self, schema: Option<&str>, name: &str) -> Option<u32> {
        if schema.is_none_or(|schema| schema == "pg_catalog")
            && let Some(builtin) = builtin::by_name(name)
        {
            return Some(builtin.oid);
        }
        let named = || self.added.values().filter(|row| &*row.name == name);
        let wanted = schema.unwrap_or("public");
        if let Some(row) = named().find(|row| &*row.schema == wanted) {
            return Some(row.oid);
        }
        // Without its schema: it is in the session's search path, and nothing tells where that leads.
        let mut others = named();
        match (schema, others.next(), others.next()) {
            (None, Some(only), None) => Some(only.oid),
            _ => None,
        }
    }
}

/// Types of extensions are known by their names, since their OIDs differ from database to database.
fn shape_of(row: &TypeRow) -> Shape {
    match (row.kind, &*row.name) {
        (TypeKind::Base, "hstore") => Shape::Hstore,
        (TypeKind::Base, "vector" | "halfvec") => Shape::Vector,
        (TypeKind::Base, "geometry" | "geography") => Shape::Geometry,
        _ => Shape::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(oid: u32, schema: &str, name: &str, kind: TypeKind) -> TypeRow {
        TypeRow {
            oid,
            schema: schema.into(),
            name: name.into(),
            kind,
            category: b'U',
            element: 0,
            base: 0,
            type_modifier: -1,
            delimiter: b',',
            length: -1,
        }
    }

    fn array(oid: u32, schema: &str, name: &str, element: u32) -> TypeRow {
        TypeRow {
            category: b'A',
            element,
            ..row(oid, schema, name, TypeKind::Base)
        }
    }

    fn domain(oid: u32, schema: &str, name: &str, base: u32, type_modifier: i32) -> TypeRow {
        TypeRow {
            base,
            type_modifier,
            ..row(oid, schema, name, TypeKind::Domain)
        }
    }

    fn catalog() -> TypeCatalog {
        let mut catalog = TypeCatalog::new();
        for row in [
            row(16389, "public", "mood", TypeKind::Enum),
            array(16388, "public", "_mood", 16389),
            domain(16393, "public", "posint", 23, -1),
            domain(16395, "My S", "D\"q", 1231, 327_686),
            array(16394, "My S", "_D\"q", 16395),
            row(16400, "public", "hstore", TypeKind::Base),
            array(16401, "public", "_hstore", 16400),
            row(16402, "ext", "vector", TypeKind::Base),
            row(16403, "public", "geometry", TypeKind::Base),
            row(16404, "public", "pair", TypeKind::Composite),
            // A domain of a domain, over a type with a modifier.
            domain(16405, "public", "instant", 1184, 3),
            domain(16406, "public", "moment", 16405, -1),
            // A domain that calls itself a vector is none.
            domain(16407, "other", "vector", 25, -1),
            // Elements between semicolons.
            TypeRow {
                delimiter: b';',
                ..row(16408, "public", "odd", TypeKind::Base)
            },
            array(16409, "public", "_odd", 16408),
            // Two that no catalog has: one in circles, one based on a type that is not there.
            domain(16410, "public", "circle_a", 16411, -1),
            domain(16411, "public", "circle_b", 16410, -1),
            domain(16412, "public", "lost", 99_999, -1),
        ] {
            catalog.insert(row);
        }
        catalog
    }

    fn of(element: ColumnType, delimiter: u8) -> Option<ColumnType> {
        Some(ColumnType::Array(Box::new(Array { element, delimiter })))
    }

    #[test]
    fn types_resolve_to_what_their_values_look_like() {
        use ColumnType as T;
        let catalog = catalog();
        for (oid, modifier, expected) in [
            (20, -1, Some(T::Integer)),
            (26, -1, Some(T::Integer)),
            (1043, 68, Some(T::Text)),
            (1184, -1, Some(T::TimestampTz { digits: 6 })),
            (1184, 0, Some(T::TimestampTz { digits: 0 })),
            (1560, 1, Some(T::Bit { width: 1 })),
            (1560, -1, Some(T::VarBit)),
            (1561, 8, of(T::Bit { width: 8 }, b',')),
            (1185, 3, of(T::TimestampTz { digits: 3 }, b',')),
            (1007, -1, of(T::Integer, b',')),
            (1020, -1, of(T::Text, b';')),
            (22, -1, Some(T::Text)),
            (16389, -1, Some(T::Text)),
            (16388, -1, of(T::Text, b',')),
            (16393, -1, Some(T::Integer)),
            (16395, -1, of(T::Numeric, b',')),
            (16394, -1, of(T::Text, b',')),
            (16400, -1, Some(T::Hstore)),
            (16401, -1, of(T::Hstore, b',')),
            (16402, 3, Some(T::Vector)),
            (16403, -1, Some(T::Geometry)),
            (16404, -1, Some(T::Text)),
            (16405, -1, Some(T::TimestampTz { digits: 3 })),
            (16406, -1, Some(T::TimestampTz { digits: 3 })),
            (16407, -1, Some(T::Text)),
            (16409, -1, of(T::Text, b';')),
            (16410, -1, Some(T::Text)),
            (16412, -1, None),
            (0, -1, None),
            (70_000, -1, None),
        ] {
            assert_eq!(catalog.resolve(oid, modifier), expected, "{oid}");
        }
        assert_eq!(catalog.missing(16412), Some(99_999));
        assert_eq!(catalog.missing(70_000), Some(70_000));
        assert_eq!(catalog.missing(16406), None);
    }

    #[test]
    fn money_is_not_known_before_its_digits_are() {
        let mut catalog = TypeCatalog::new();
        catalog.insert(domain(16420, "public", "price", 790, -1));
        for oid in MONEY.into_iter().chain([16420]) {
            assert_eq!(catalog.resolve(oid, -1), None, "{oid}");
            assert_eq!(catalog.missing(oid), Some(790), "{oid}");
        }
        catalog.note_money(3);
        let money = ColumnType::Money { digits: 3 };
        for (oid, expected) in [(790, Some(money.clone())), (791, of(money.clone(), b','))] {
            assert_eq!(catalog.resolve(oid, -1), expected, "{oid}");
        }
        assert_eq!(catalog.resolve(16420, -1), Some(money));
    }

    /// What `SELECT attname, atttypid, atttypmod, format_type(atttypid, atttypmod)` says on PostgreSQL 15.
    #[test]
    fn names_as_format_type_writes_them() {
        let catalog = catalog();
        for (oid, modifier, text) in [
            (1043, 68, "character varying(64)"),
            (1043, -1, "character varying"),
            (1042, 9, "character(5)"),
            (1042, 5, "character"),
            (1042, -1, "bpchar"),
            (1560, 8, "bit(8)"),
            (1560, -1, "\"bit\""),
            (1562, 8, "bit varying(8)"),
            (1562, -1, "bit varying"),
            (1700, 1_310_729, "numeric(20,5)"),
            (1700, -1, "numeric"),
            (1700, 327_684, "numeric(5,0)"),
            (1700, 198_658, "numeric(3,-2)"),
            (1114, 3, "timestamp(3) without time zone"),
            (1114, -1, "timestamp without time zone"),
            (1184, 0, "timestamp(0) with time zone"),
            (1083, 3, "time(3) without time zone"),
            (1266, -1, "time with time zone"),
            (1266, 2, "time(2) with time zone"),
            (1186, -1, "interval"),
            (1186, 2_147_418_115, "interval(3)"),
            (1186, 470_286_339, "interval day to second(3)"),
            (1186, 458_751, "interval year to month"),
            (1186, 268_435_458, "interval second(2)"),
            (1186, 201_392_127, "interval hour to minute"),
            (16389, -1, "mood"),
            (16389, -1, "public.mood"),
            (16388, -1, "mood[]"),
            (16388, -1, "public.mood[]"),
            (16393, -1, "posint"),
            (16395, -1, "\"My S\".\"D\"\"q\""),
            (16394, -1, "\"My S\".\"D\"\"q\"[]"),
            (18, -1, "\"char\""),
            (1007, -1, "integer[]"),
            (1022, -1, "double precision[]"),
            (700, -1, "real"),
            (20, -1, "bigint"),
            (21, -1, "smallint"),
            (16, -1, "boolean"),
            (25, -1, "text"),
            (19, -1, "name"),
            (1020, -1, "box[]"),
            (1015, 7, "character varying(3)[]"),
            (1115, 3, "timestamp(3) without time zone[]"),
            (3220, -1, "pg_lsn"),
            (16402, 3, "ext.vector(3)"),
            (16403, -1, "geometry(Point,4326)"),
        ] {
            assert_eq!(catalog.by_name(text), Some((oid, modifier)), "{text}");
        }
        for unknown in [
            "",
            "[]",
            "nothing",
            "no.mood",
            "\"mood",
            "mood(",
            "integer(",
            "\"a\".",
            "double",
            "a b",
            // In two schemas, neither of them public.
            "vector",
            // Has no arrays.
            "pg_node_tree[]",
        ] {
            assert_eq!(catalog.by_name(unknown), None, "{unknown}");
        }
    }
}
