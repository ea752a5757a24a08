//! Images of our own: what they are to be, how they are made, which of them a pool boots.
//!
//! An image's way: [`definition`] (a file of `amis/`) → [`variables`] (Packer's) → [`bake`] (runs Packer;
//! [`packer_log`] reads what it says; [`leftovers`] removes what a dead one left) → [`evidence`] (is it what
//! was asked for?) → [`catalogue`] (what there is, told by the images' own tags) → [`promote`] (into a
//! channel) → [`choose`] (which one a pool boots; [`fit`] says what stands against one) → [`prune`].
//!
//! The catalogue has no file: as everywhere, truth is what AWS answers.

pub mod bake;
pub mod catalogue;
pub mod choose;
pub mod definition;
pub mod evidence;
pub mod fit;
pub mod image;
pub mod leftovers;
pub mod packer_log;
pub mod promote;
pub mod prune;
pub mod variables;
